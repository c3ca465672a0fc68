"""Any Hugging Face causal language model; the only file that knows transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from longspan.models import attention, checks
from longspan.models.adapter import HuggingFaceModel
from longspan.models.decoder import Graphs, fixed_shapes
from longspan.models.hub import EMBEDDED, fetching, on_hub
from longspan.options import Count, settings


@settings
class HuggingFace:
    """Where a model is and how it is loaded. `load` gives the model."""

    path: str
    """A hub id, a local folder, or `nano` for the embedded model."""
    name: str | None = None
    """In tables and folders; None takes the last part of the path."""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "bfloat16"
    """`auto` is the type in which the weights are stored."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    """accelerate's placement over several devices; overrides `device`."""
    trust_remote_code: bool = False
    config: dict[str, Any] | None = None
    """Entries that replace those of the weights' config.json, such as YaRN's rope_parameters."""
    prefill_chunk_tokens: Count = 8192
    """Smaller saves memory; larger reads the stored keys less often. A sparse prefill chooses anew
    for each chunk.
    """
    overlap_index: bool = False
    """Build a layer's index in a thread of its own while later layers read the last chunk."""
    chat_template: str = "auto"
    """`auto`: the tokenizer's own, where it has one; `none`; or a Jinja file."""
    thinking: bool | None = None
    """Passed to templates that know `enable_thinking` (Qwen3); None leaves the template's default.
    """
    graphs: Graphs = "auto"
    """See Graphs."""
    compile: bool = False
    """Have torch compile what lies between the attention of one layer and the next, in decode steps
    of fixed shape, those of `graphs`.
    """

    def load(self) -> HuggingFaceModel:
        """Load weights and tokenizer and test the adapter on 12 tokens.

        ValueError names what is missing or why the architecture cannot be carried.
        """
        self._check()
        quiet_transformers()
        source = self._source()
        with fetching(self.path):
            config = self._config(source)
            windows = self._refusing(lambda: checks.layer_windows(config))
            tokenizer = self._tokenizer(source)
            module = self._weights(source, config)
        layers = self._refusing(lambda: _attach(module, windows, opaque=self.compile))
        return HuggingFaceModel(self, source, module, tokenizer, windows, layers)

    def _source(self) -> str:
        embedded = self.path == EMBEDDED
        folder = Path(__file__).parent / EMBEDDED if embedded else Path(self.path).expanduser()
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise ValueError(f"model.path = {self.path!r}: the folder has no config.json")
            if self.revision is not None:
                raise ValueError(
                    f"model.revision = {self.revision!r}: a folder has none; right would be null"
                )
            return str(folder)
        if not on_hub(self.path):
            raise ValueError(f"model.path = {self.path!r}: there is no such folder")
        return self.path

    def _config(self, source: str) -> Any:
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

        given = self.config or {}
        if "rope_scaling" in given:
            raise ValueError(
                "model.config.rope_scaling: right would be rope_parameters, with rope_type,"
                " rope_theta and what the type needs"
            )
        config, unknown = self._reading(
            "configuration", AutoConfig.from_pretrained, source, return_unused_kwargs=True, **given
        )
        if unknown := sorted(unknown.keys() & given.keys()):
            raise ValueError(
                f"model.config.{unknown[0]}: a {config.model_type} configuration has no such entry"
            )
        remote = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not remote:
            raise ValueError(
                f"model.path = {self.path!r}: {config.model_type!r} is not a causal language model"
            )
        return config

    def _tokenizer(self, source: str) -> Any:
        from transformers import AutoTokenizer

        tokenizer = self._reading("tokenizer", AutoTokenizer.from_pretrained, source)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:  # the first text would take both away: they identify nothing
            backend.no_truncation()
            backend.no_padding()
        return tokenizer

    def _weights(self, source: str, config: Any) -> Any:
        from transformers import AutoModelForCausalLM

        dtype = "auto" if self.dtype == "auto" else getattr(torch, self.dtype)
        # quantised modules cannot be moved, so they are loaded where they will be
        quantised = getattr(config, "quantization_config", None) is not None
        devices = self.device_map or ({"": self._device()} if quantised else None)
        module, report = self._reading(
            "weights",
            AutoModelForCausalLM.from_pretrained,
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            device_map=devices,
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(
                f"model.path = {self.path!r}: its weights lack {len(missing)} tensors "
                f"({missing[0]}, ...)"
            )
        if beyond := checks.beyond(module, report["unexpected_keys"]):
            raise ValueError(
                f"model.path = {self.path!r}: its weights hold {len(beyond)} tensors that its "
                f"config has no place for ({beyond[0]}, ...)"
            )
        if devices is None:
            module = module.to(self._device())
        return module.eval()

    def _check(self) -> None:
        cuda = torch.cuda.is_available()
        if self.device == "cuda" and not cuda:
            raise ValueError("model.device = 'cuda': there is no CUDA device; use model.device=cpu")
        if self.graphs == "on" and not cuda:
            raise ValueError(
                "model.graphs = 'on': there is no CUDA device; right would be auto, off, or eager,"
                " the same step without a graph"
            )
        if self.compile and not fixed_shapes(self.graphs, cuda=self._device() == "cuda"):
            raise ValueError(
                f"model.compile = true: steps of fixed shape alone are compiled, and with"
                f" model.graphs = {self.graphs!r} there are none here; right would be eager"
            )

    def _device(self) -> str:
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device

    def _reading(self, what: str, reader: Any, source: str, **options: Any) -> Any:
        try:
            return reader(
                source, revision=self.revision, trust_remote_code=self.trust_remote_code, **options
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a malformed file or remote code makes it raise
            reason = " ".join(str(error).split())
            if "trust_remote_code" in reason:
                reason = "it brings its own code; model.trust_remote_code=true would run it"
            if "ignore_mismatched_sizes" in reason:
                reason = "they have other shapes than its config says"
            if self.config:
                reason += f"; model.config = {self.config} may be why"
            raise ValueError(
                f"model.path = {self.path!r}: its {what} cannot be read: {reason}"
            ) from error

    def _refusing(self, check: Any) -> Any:
        try:
            return check()
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"model.path = {self.path!r}: {reason}") from error


def quiet_transformers() -> None:
    """Leave the terminal to the progress bars: transformers reports errors only."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _attach(module: Any, windows: list[int | None], *, opaque: bool = False) -> list[Any]:
    """Its attention is longspan's from here on; `opaque`: a compiler does not look into it."""
    from transformers import AttentionInterface, AttentionMaskInterface

    checks.check_module(module)
    function: Any = attention.longspan_attention
    if opaque:
        function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    AttentionInterface.register(attention.NAME, function)
    AttentionMaskInterface.register(attention.NAME, attention.longspan_mask)
    return checks.probe(module, windows, attention.NAME)
