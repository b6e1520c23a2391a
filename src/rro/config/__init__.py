"""The one configuration tree: a TOML recipe plus dotted overrides, checked, and written into the
run folder."""

from rro.config.cluster import RayConfig
from rro.config.loading import check_plugins, dump_toml, load_config, parse_config, parse_options
from rro.config.sections import (
    BudgetConfig,
    Config,
    CreditConfig,
    EnvironmentConfig,
    EvaluateConfig,
    ExpertsConfig,
    ExploreConfig,
    LoraConfig,
    ModelConfig,
    OptimiseConfig,
    PolicyConfig,
    PricesConfig,
    RoundsConfig,
    TinyConfig,
)
from rro.config.tables import PluginSection, Section
from rro.config.training import ClosingConfig, DpoConfig, SftConfig, TrainingConfig

__all__ = [
    "BudgetConfig",
    "ClosingConfig",
    "Config",
    "CreditConfig",
    "DpoConfig",
    "EnvironmentConfig",
    "EvaluateConfig",
    "ExpertsConfig",
    "ExploreConfig",
    "LoraConfig",
    "ModelConfig",
    "OptimiseConfig",
    "PluginSection",
    "PolicyConfig",
    "PricesConfig",
    "RayConfig",
    "RoundsConfig",
    "Section",
    "SftConfig",
    "TinyConfig",
    "TrainingConfig",
    "check_plugins",
    "dump_toml",
    "load_config",
    "parse_config",
    "parse_options",
]
