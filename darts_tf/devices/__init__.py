"""What computes: TensorFlow's start, the devices of a process, the processes of a job."""
