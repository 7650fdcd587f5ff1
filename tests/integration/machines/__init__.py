"""Several machines: gateways on one Redis, with a balancer before them, and one of them half dead."""
