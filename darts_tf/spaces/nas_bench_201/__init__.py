"""NAS-Bench-201 (Dong & Yang, 2020): 15,625 cells of one input, whose accuracies others have published."""
