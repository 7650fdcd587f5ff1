"""What measures: each row of C{python -m benchmarks} beside a reference that ran in the same minute."""
