"""Miyagi: reproducible, comparable self-supervised learning on images."""

__version__ = "0.1.0"
