"""Students as folders: the untrained one (`base`), and any of them read back (`load`).

A small base is a Llama of the recipe's sizes with seeded weights and a byte-level BPE tokenizer learned from
the pool. A pretrained base is a folder that names a model on the hub or on disk and holds no weights itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balkit import recipe, texts
from balkit.errors import StudentError, need
from balkit.student import checkpoint as folders

#: The small student's chat: every control token is one special token.
SMALL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}{{ eos_token }}"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ("<|pad|>", "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>")
_BYTES = 256


@dataclass(frozen=True)
class Loaded:
    """A student in memory: `context` is the most tokens it can read, `digest` names its weights in scores."""

    model: Any
    tokenizer: Any
    device: str
    context: int
    digest: str

    @property
    def pad_id(self) -> int:
        """A token to fill rows with; it is never attended to, so any serves where there is no padding token."""
        return next(
            (int(own) for own in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if own is not None), 0
        )


def base(section: recipe.Student, *, corpus: Sequence[str], seed: int, folder: Path) -> Path:
    """The untrained student as a folder; `folder` is returned.

    Small: built once from the sizes, with a BPE tokenizer learned from `corpus` (its order and repeats do not
    matter). The same inputs give the same bytes of weights. Pretrained: a folder that names the model; `corpus`
    and `seed` have no effect. Raises `StudentError` for a vocabulary that is too small or a name that is nothing.
    """
    if section.base != "small":
        return _named_base(section, folder=folder)
    if section.vocabulary < _BYTES + len(_SPECIAL):
        raise StudentError(
            f"student.vocabulary {section.vocabulary} is too small: {_BYTES} bytes and {len(_SPECIAL)} control "
            f"tokens need {_BYTES + len(_SPECIAL)}"
        )
    learned = sorted(set(corpus))
    sizes = section.model_dump(include={"layers", "width", "heads", "vocabulary", "context"})
    key = texts.digest(["small", 3, sizes, texts.digest(learned), seed])
    if folders.complete(folder, key=key) is not None:
        return folder
    with folders.staged(folder) as staging, quiet():
        _tokenizer(learned, vocabulary=section.vocabulary, context=section.context).save_pretrained(staging)
        _small_model(section, size=_vocabulary_of(staging), seed=seed).save_pretrained(staging)
        digest = folders.weights_digest(staging)
        folders.write_manifest(staging, {"kind": "small", "key": key, "digest": digest, "weights": digest})
    return folder


def load(folder: Path, *, whole: bool = False, quantize: str | None = None) -> Loaded:
    """A base or a checkpoint in memory, on the GPU where there is one.

    float32 on CPU; on a GPU bfloat16, but float32 where the `whole` model will be trained; `quantize="4bit"` on
    a GPU only. Weights are read from safetensors or GGUF, never from pickles. Raises `StudentError` for what
    cannot be read, for a base folder whose files changed, and for an adapter that does not fit its base.
    """
    manifest = folders.read_manifest(folder)
    changed = folders.changed(folder, manifest)
    if changed:
        raise StudentError(f"{folder / changed}: is not as it was written; delete the folder, and make it again")
    device = "cuda" if need("torch", extra="train").cuda.is_available() else "cpu"
    source: dict[str, Any] = (
        manifest["base"] if manifest["kind"] in ("pretrained", "adapter") else {"name": str(folder)}
    )
    _unchanged(source)
    with quiet(), _translated(source["name"]):
        tokenizer = load_tokenizer(folder)
        model = read_weights(source, device=device, whole=whole, quantize=quantize or source.get("quantize"))
        if manifest["kind"] == "adapter":
            model = _with_adapter(model, folder)
    model.eval()
    return Loaded(model, tokenizer, device, context_of(model.config), manifest["digest"])


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a base or a checkpoint; a pretrained base has its own where it came from."""
    load_from = need("transformers", extra="train").AutoTokenizer.from_pretrained
    if (Path(folder) / "tokenizer.json").exists() or (Path(folder) / "tokenizer_config.json").exists():
        tokenizer = load_from(str(folder))
    else:
        source = folders.read_manifest(folder)["base"]
        tokenizer = load_from(source["name"], **_gguf(source))
    # Marked as said already: a text beyond the context is ours to refuse or to cut. `model_max_length` would be saved.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def read_weights(source: dict[str, Any], *, device: str, whole: bool, quantize: str | None) -> Any:
    """The causal LM that `source` names (`name`; `gguf_file`, `revision` where known), on `device`."""
    torch, transformers = need("torch", extra="train"), need("transformers", extra="train")
    dtype = torch.bfloat16 if device == "cuda" and not whole else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "revision": source.get("revision") or "main"}
    options.update(_gguf(source) or {"use_safetensors": True})
    if quantize == "4bit":
        _need_4bit(device)
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    model = transformers.AutoModelForCausalLM.from_pretrained(source["name"], **options)
    model.generation_config = _greedy_config(model)
    if source.get("gguf_file"):  # the weights are dequantised by now, and transformers would refuse to save them
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model if quantize else model.to(device)


def _gguf(source: dict[str, Any]) -> dict[str, Any]:
    if not source.get("gguf_file"):
        return {}
    need("gguf", extra="gguf")
    return {"gguf_file": source["gguf_file"]}


def context_of(config: Any) -> int:
    """The most tokens a model of this config can read."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        if getattr(text, name, None):
            return int(getattr(text, name))
    return 1 << 30  # no positions to run out of (recurrent models)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers' own progress bars off inside the block: a loop shows ours or none."""
    logging_of = need("transformers.utils.logging", extra="train")
    shown = logging_of.is_progress_bar_enabled()
    logging_of.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging_of.enable_progress_bar()


def _named_base(section: recipe.Student, *, folder: Path) -> Path:
    local = Path(section.base)
    source: dict[str, Any] = {"name": section.base, "gguf_file": section.gguf_file}
    if local.exists():
        if not (local / (section.gguf_file or "config.json")).is_file():
            raise StudentError(f"student.base {local}: no {section.gguf_file or 'config.json'} in this folder")
        source["name"] = str(local.resolve())
    elif local.is_absolute() or section.base.startswith((".", "~")):
        raise StudentError(f"student.base {section.base}: no such folder")
    source["content"] = _content(local, gguf_file=section.gguf_file) if local.exists() else None
    key = texts.digest(["pretrained", 1, section.gguf_file, source["content"] or section.base])
    if folders.complete(folder, key=key) is None:
        with folders.staged(folder) as staging:
            folders.write_manifest(staging, {"kind": "pretrained", "key": key, "digest": key, "base": source})
    return folder


def _content(local: Path, *, gguf_file: str | None) -> dict[str, str]:
    """sha256 by name of the files that make a model in a folder: its weights, config and tokenizer."""
    weights = [local / gguf_file] if gguf_file else sorted(local.glob("*.safetensors"))
    others = [file for suffix in ("json", "jinja", "txt", "model") for file in sorted(local.glob(f"*.{suffix}"))]
    return {file.name: folders.sha256(file) for file in [*weights, *others] if file.is_file()}


def _unchanged(source: dict[str, Any]) -> None:
    known = source.get("content")
    if not known:
        return
    local = Path(source["name"])
    now = _content(local, gguf_file=source.get("gguf_file")) if local.is_dir() else {}
    changed = sorted(name for name in known if now.get(name) != known[name])
    if changed:
        raise StudentError(
            f"{local}: {', '.join(changed)} changed or went missing since this base was named, and a student of it "
            "would silently be another: put them back, or start again from `student.base` in a new folder"
        )


def _tokenizer(learned: Sequence[str], *, vocabulary: int, context: int) -> Any:
    tokenizers, transformers = need("tokenizers", extra="train"), need("transformers", extra="train")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    as_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, as_bytes])
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(learned, trainer)
    pad, bos, eos, *_ = _SPECIAL
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        additional_special_tokens=list(_SPECIAL[3:]),
        chat_template=SMALL_TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def _vocabulary_of(folder: Path) -> int:
    return len(load_tokenizer(folder))


def _small_model(section: recipe.Student, *, size: int, seed: int) -> Any:
    torch, transformers = need("torch", extra="train"), need("transformers", extra="train")
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=section.width,
        intermediate_size=-(-section.width * 8 // 3 // 32) * 32,  # SwiGLU's 8/3, up to a multiple of 32
        num_hidden_layers=section.layers,
        num_attention_heads=section.heads,
        max_position_embeddings=section.context,
        # 0.02 is meant for widths near 2,500 and learns slowly here; width**-0.5 learns fastest but generalises worse
        # (quickstart: 14 to 19 macro points below this).
        initializer_range=0.5 * section.width**-0.5,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.LlamaForCausalLM(config).to(torch.float32)


def _with_adapter(model: Any, folder: Path) -> Any:
    peft, safetensors = need("peft", extra="train"), need("safetensors", extra="train")
    model = peft.PeftModel.from_pretrained(model, str(folder))
    with safetensors.safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as stored:
        on_file = set(stored.keys())
    in_model = set(peft.get_peft_model_state_dict(model, save_embedding_layers=False))
    if on_file != in_model:
        raise StudentError(
            f"{folder}: its adapter does not fit its base model: {len(in_model - on_file)} weights missing, "
            f"{len(on_file - in_model)} left over; was the base replaced?"
        )
    return model


def _greedy_config(model: Any) -> Any:
    """The model's control tokens without its sampling defaults, which greedy decoding would warn about."""
    given = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return type(given)(**{name: getattr(given, name) for name in names})


def _need_4bit(device: str) -> None:
    if device != "cuda":
        raise StudentError("student.lora.quantize: 4bit needs a CUDA GPU, and none is here; remove `quantize`")
    need("bitsandbytes", extra="qlora")


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise StudentError(f"the student {name!r} cannot be read: {error}") from error
