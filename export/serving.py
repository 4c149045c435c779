"""Files that tell TF Serving which models there are and how to batch requests."""

import pathlib

from darts_tf.files import write

BATCHING = """\
max_batch_size { value: 1024 }
max_execution_batch_size { value: 32 }
enable_large_batch_splitting { value: true }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 1000 }
num_batch_threads { value: 4 }
"""


def write_configuration(folder, mounted="/models"):
    """Writes models.config, for --model_config_file, and batching.config, for --batching_parameters_file.

    Args:
        folder: has one folder per model; each that holds a version is served.
        mounted: where the server sees the folder.
    """
    folder = pathlib.Path(folder)
    versions = [path.parent for path in folder.glob("*/*/saved_model.pb") if path.parent.name.isdecimal()]
    names = sorted({version.parent.name for version in versions})
    models = "".join(
        f'  config {{ name: "{name}" base_path: "{mounted}/{name}" model_platform: "tensorflow" }}\n' for name in names
    )
    write(folder / "models.config", f"model_config_list {{\n{models}}}\n")
    if not (folder / "batching.config").exists():  # it may have been tuned
        write(folder / "batching.config", BATCHING)
