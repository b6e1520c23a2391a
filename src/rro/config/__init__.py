"""The one configuration tree: a TOML recipe plus dotted overrides, checked, and written into the
run folder."""

from rro.config.loading import check_plugins, dump_toml, load_config, parse_config, parse_options
from rro.config.sections import (
    BudgetConfig,
    ClosingConfig,
    Config,
    CreditConfig,
    DpoConfig,
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
    SftConfig,
    TinyConfig,
    TrainingConfig,
)
from rro.config.tables import PluginSection, Section

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
