"""What candidates are made of: operations, their stages, the mixed operation, what TensorFlow lacks for them."""
