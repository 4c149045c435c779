"""How to choose: the bilevel step, optimizers."""
