"""Tests of the preflight; a package, so that module names may repeat those of other tests."""
