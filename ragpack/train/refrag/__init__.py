"""Training of REFRAG's projector and policy for a frozen decoder."""
