"""Our BC, IQL and PPO beside d3rlpy's and stable-baselines3's: ``python -m benchmarks.parity``."""
