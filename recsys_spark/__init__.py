"""Nightly batch recommendations on Apache Spark."""

__version__ = "0.1.0"
