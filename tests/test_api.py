"""What the package offers by its name."""

import importlib

import darts_tf


def test_every_public_name():
    for name in darts_tf.__all__:
        assert getattr(darts_tf, name).__doc__


def test_short_names_of_modules():
    for short, places in darts_tf._MODULES.items():
        module = importlib.import_module(f"darts_tf.{short}")
        for place in places:
            for name, value in vars(importlib.import_module(f"darts_tf.{place}")).items():
                if getattr(value, "__module__", None) == f"darts_tf.{place}":
                    assert getattr(module, name) is value
