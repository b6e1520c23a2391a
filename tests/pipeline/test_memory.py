"""The memory of a training and of sampling: by hand, and against what torch keeps."""

import pytest

from rro.config import SftConfig, parse_config
from rro.models.sizes import ModelSize, Shape
from rro.pipeline.memory import described, disk, sampling_memory, training_memory

QWEN = Shape(28, 1536, 8960, 12, 128, 2, 151_936, 32_768)
SIZE = ModelSize(1_540_000_000, QWEN)
ROWS, LENGTH, TOKENS = 2, 1024, 32


def config(**sections):
    return parse_config({"model": {"name": "owner/model"}, **sections}, "recipe")


def sft(**options):
    return SftConfig(micro_batch=ROWS, max_length=LENGTH, **options)


def activations(config, options, size=SIZE, sides=1):
    return training_memory(config, options, size, sides, messages=3).activations


def test_weights_gradients_and_moments():
    # the last two bytes: the copy of the weights that autocast computes with
    assert training_memory(config(), sft(), SIZE, 1, 3).states == (16 + 2) * 1_540_000_000
    lora = config(model={"name": "owner/model", "lora": {"rank": 16}})
    queries, keys = 2 * (1536 + 12 * 128), 2 * (1536 + 2 * 128)
    adapters = 28 * 16 * (queries + keys + 3 * (1536 + 8960))
    states = training_memory(lora, sft(precision="float32"), SIZE, 1, 3).states
    assert states == 4 * 1_540_000_000 + 16 * adapters


def test_what_lowers_activations():
    policy = {"max_new_tokens": TOKENS}
    whole = activations(config(policy=policy), sft())
    assert activations(config(policy=policy), sft(), sides=2) == 2 * whole
    assert activations(config(policy=policy), sft(gradient_checkpointing=True)) < whole / 5
    assert activations(config(policy={"max_new_tokens": 8}), sft()) < whole
    assert activations(config(), sft(), ModelSize(10, None)) is None


def test_keys_and_values_of_a_full_batch_and_cache():
    policy = {"max_batch": 8, "max_context": 1000, "prefix_cache_tokens": 500}
    weights, cache = sampling_memory(config(policy=policy), SIZE)
    assert (weights, cache) == (2 * 1_540_000_000, 2 * QWEN.kv_values * 8500)
    frozen = config(policy=policy, explore={"pricing": "sft"})
    assert sampling_memory(frozen, SIZE)[0] == 2 * weights
    exact = config(policy=policy, model={"name": "owner/model", "dtype": "float32"})
    assert sampling_memory(exact, SIZE) == (2 * weights, 2 * cache)


def test_checkpoints_that_stay():
    rounds = {"count": 10, "evaluate_every": 5}
    # the base model, two evaluated ones, two on the way, and three while one trains
    assert disk(config(rounds=rounds), SIZE) == 4 * 1_540_000_000 * (1 + 2 + 2 + 3)
    assert described(3 * 2**29) == "1.5 GiB"
    assert described(5 * 2**20) == "5 MiB"


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_layer_keeps_about_as_much_as_it_is_said_to(family, precision):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    length, softcap = 256, family == "gemma2"
    named = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "gemma2": "Gemma2Config"}[family]

    def kept(layers):
        """Bytes for the backward pass, without parameters; each storage once."""
        model = transformers.AutoModel.from_config(
            getattr(transformers, named)(
                hidden_size=128,
                intermediate_size=352,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=4,
                vocab_size=100,
                **({"head_dim": 32} if softcap else {}),
            )
        )
        ours, found, alive = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}, []

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in ours:
                found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "auto"),
        ):
            model(torch.zeros((1, length), dtype=torch.long), use_cache=False)
        return sum(found.values()), sum(p.numel() for p in model.parameters())

    def stated(layers, parameters):
        shape = Shape(layers, 128, 352, 4, 32, 4, 100, 4096, softcap=softcap)
        options = SftConfig(micro_batch=1, max_length=length, precision=precision)
        memory = training_memory(config(), options, ModelSize(parameters, shape), 1, 3)
        return memory.states - 16 * parameters + memory.activations

    (two, small), (four, large) = kept(2), kept(4)
    measured, told = four - two, stated(4, large) - stated(2, small)
    assert measured <= told <= 1.2 * measured
