"""DenseNAS (Fang et al., CVPR 2020): densely connected blocks; a path, widths and operations are searched."""
