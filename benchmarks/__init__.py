"""Measurements that README and docs quote; nothing of the package imports them."""
