"""Files that tell TF Serving which models there are and how to batch requests."""

import pathlib
import re

from google.protobuf import text_format

from darts_tf.cli.files import write
from export.locks import locked

MODELS, BATCHING = "models.config", "batching.config"
PARAMETERS = """\
max_batch_size { value: 1024 }
max_execution_batch_size { value: 32 }
enable_large_batch_splitting { value: true }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 1000 }
num_batch_threads { value: 4 }
"""


class ConfigurationError(ValueError):
    """A file that is there cannot be added to; the message says why, and what has to stand in it."""


def write_configuration(folder, mounted="/models"):
    """Adds the models to models.config (for --model_config_file), and writes batching.config if there is none.

    Both may be edited: what stands in them stays, and models.config is only added to.

    Args:
        folder: has one folder per model; each that holds a version is served.
        mounted: where the server sees the folder.

    Raises:
        ConfigurationError: models.config is no list of models; it stays as it is.
        OSError: the folder cannot be written to.
    """
    folder = pathlib.Path(folder)
    versions = [path.parent for path in folder.glob("*/*/saved_model.pb") if re.fullmatch("[0-9]+", path.parent.name)]
    names = sorted({version.parent.name for version in versions})
    with locked(folder):
        if not (folder / BATCHING).exists():
            write(folder / BATCHING, PARAMETERS)
        path = folder / MODELS
        before = path.read_bytes() if path.exists() else b""
        try:
            after = _with_models(before.decode(), {name: f"{mounted}/{name}" for name in names})
        except (text_format.ParseError, ValueError) as error:
            lines = " ".join(_entry(name, f"{mounted}/{name}") for name in names)
            reason = " ".join(str(error).split())[:200]
            raise ConfigurationError(f"{path} is no list of models ({reason}): expected {lines} in one.") from None
        if after.encode() != before:
            write(path, after)


def _with_models(text, paths):
    """A configuration, as text, with those models added to it that are not in it.

    Args:
        text: of a `ModelServerConfig`.
        paths: {name: base path}.

    Raises:
        ValueError: it is none.
    """
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    config = text_format.Parse(text, ModelServerConfig())
    kind = config.WhichOneof("config")
    if kind == "custom_model_config":
        raise ValueError(f"it holds a {kind}")
    known = config.model_config_list.config
    served = {model.name for model in known} | {model.base_path.rstrip("/") for model in known}
    missing = {name: path for name, path in paths.items() if not {name, path} & served}
    if not missing:
        return text
    added = "".join(f"  {_entry(name, path)}\n" for name, path in missing.items())
    if kind is None:
        text += "\n" if text and not text.endswith("\n") else ""
        return f"{text}model_config_list {{\n{added}}}\n"
    for name, path in missing.items():
        known.add(name=name, base_path=path, model_platform="tensorflow")
    # The list ends at a brace, but not every brace ends it: there are comments, too.
    for end in sorted((match.start() for match in re.finditer("[}>]", text)), reverse=True):
        changed = text[:end] + ("" if text[:end].endswith("\n") else "\n") + added + text[end:]
        try:
            if text_format.Parse(changed, ModelServerConfig()) == config:
                return changed
        except text_format.ParseError:
            continue
    raise ValueError("its end was not found")


def _entry(name, path):
    return f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}'
