"""What is remembered: runs, what they made and removed, and the jobs that rules have done. Begin with `ledger`."""
