"""What people look at: report.html, pictures, TensorBoard."""
