"""Whether every hop between service.toml and an annotation works, and if not, which one is broken and what mends it.

Reading order: `findings` (what a check is and says), `patient` (what is examined), `examination` (one check after the
other), `agenda` (which checks there are); then a module for each group of them. Nothing is changed on the server.
"""
