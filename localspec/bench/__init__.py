"""Measurements that hold on a noisy laptop: cases, one process a visit, robust statistics."""
