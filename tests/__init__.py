"""Unit tests, one file a module of C{gateway}; C{tests.integration} runs against real parts."""
