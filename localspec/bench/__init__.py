"""Measurements that survive a noisy laptop: cases, visits in processes of their own, statistics."""
