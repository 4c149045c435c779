"""What a Keras model costs: parameters, multiply-adds."""
