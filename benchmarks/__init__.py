"""Measurements that README and docs quote; the package imports none of them."""
