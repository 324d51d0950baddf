"""Tests of the sources of records; a package, so that module names may repeat those of other tests."""
