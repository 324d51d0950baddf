"""Tests of the built-in corpus; a package, so that module names may repeat those of other tests."""
