"""From a name, a folder or a file to batches, and what is asked of them: the task."""
