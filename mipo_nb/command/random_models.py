"""Models that nobody trained, in the shapes of known ones and in folders of the hub's format, with a tokenizer of bytes.

What they answer is noise. Their arithmetic, memory and speed are those of their shape, and so a check of a machine needs
no network, no hub and no download.
"""

import json
import random
from pathlib import Path

from mipo_nb.base.files import write_atomically

_PART = 2e9  # bytes of a file of weights, so that no more lie in memory while a model is written
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # tokens 0, 1 and 2
_COMMON = {"max_position_embeddings": 4096, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _shape(model_type, h, ff, layers, heads, groups, vocabulary, tied=True):
    """The numbers of a configuration by their names."""
    return {
        "model_type": model_type,
        "hidden_size": h,
        "intermediate_size": ff,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
    }


SHAPES = {
    "tiny": _shape("qwen2", 64, 128, 4, 4, 2, 512),
    "Qwen2.5-0.5B": _shape("qwen2", 896, 4864, 24, 14, 2, 151936),
    "Llama-3.2-1B": _shape("llama", 2048, 8192, 16, 32, 8, 128256),
    "Qwen2.5-1.5B": _shape("qwen2", 1536, 8960, 28, 12, 2, 151936),
    "Qwen2.5-7B": _shape("qwen2", 3584, 18944, 28, 28, 4, 152064, tied=False),
}


def config_of(shape):
    """The configuration of a shape: a name of `SHAPES`, or numbers like those there."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**(SHAPES[shape] if isinstance(shape, str) else shape), **_COMMON)


def tokenizer():
    """A tokenizer whose tokens are the 256 bytes, behind the control tokens of its ChatML template."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokens = [*_CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _CONTROL])
    padding, start, end = _CONTROL
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=start, eos_token=end, pad_token=padding)
    made.chat_template = _CHATML
    return made


def write(folder, shape, *, dtype="float32", device="cpu", seed=0):
    """Write a random model of a shape (see `config_of`) and its tokenizer to a folder, made where it is missing. Returns the
    folder as text, as `models.load` takes it. The weights are drawn on `device` and kept in `dtype`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    folder, config, places = Path(folder), config_of(shape), {}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]  # which other programs read
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    for number, weights in enumerate(_parts(model, dtype, device, seed)):
        file = f"part-{number}.safetensors"
        save_file(weights, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(weights, file)
    write_atomically(folder / "model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": places}))
    return str(folder)


def _parts(model, dtype, device, seed):
    """{name: weights} of an empty model, some gigabytes at a time: matrices drawn so that every layer's sums stay of order
    one, norms of one, biases of zero."""
    import torch

    draw = torch.Generator(device).manual_seed(seed)
    part, size = {}, 0
    for name, empty in model.named_parameters():
        if empty.ndim > 1:
            weights = torch.randn(empty.shape, generator=draw, device=device).mul_(model.config.hidden_size**-0.5)
        else:
            weights = torch.full(empty.shape, float(name.endswith("weight")))
        part[name] = weights.to("cpu", getattr(torch, dtype))
        size += part[name].nbytes
        if size > _PART:
            yield part
            part, size = {}, 0
    if part:
        yield part


def token_prompts(n, length, vocabulary, *, seed=0):
    """`n` lists of `length` token ids, of which the first quarter is the same in all, as the words around a user are."""
    draw = random.Random(seed)
    some = lambda k: draw.choices(range(len(_CONTROL), vocabulary), k=k)  # noqa: E731
    common = some(length // 4)
    return [common + some(length - len(common)) for _ in range(n)]


def token_pairs(n, prompt, response, vocabulary, *, seed=0):
    """`n` pairs of token ids as a trainer takes them, a `datasets.Dataset`: both sides of one length, after prompts of
    `token_prompts`, with reference log-probs of zero."""
    import numpy as np
    from datasets import Dataset

    from mipo_nb.pairs import with_reference

    draw = random.Random(f"responses-{seed}")
    side = lambda: [draw.choices(range(len(_CONTROL), vocabulary), k=response) for _ in range(n)]  # noqa: E731
    ids = {"prompt_ids": token_prompts(n, prompt, vocabulary, seed=seed), "chosen_ids": side(), "rejected_ids": side()}
    return with_reference(Dataset.from_dict(ids), np.zeros((n, 2)))
