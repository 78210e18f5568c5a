"""Real nodes, killed with SIGKILL in the middle of what they do, and what must hold when they are started again.

``python -m tests.crash --count 100 --seed 7`` (``make crash N=100``) draws rounds from a seed that it prints; the same
seed draws the same rounds. A round (``round``, ``rounds``) is one operation of one node, ended at a crash point of
``guts.crash`` or at a random moment. Then the node is started again, its disk is looked at (``state``), and the
operation is done once more, to its end. What rounds begin with is made once (``world``) and copied.
"""
