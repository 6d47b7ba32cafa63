"""The flows; importing any of them settles the way to the network first (`flows.environment`)."""

from flows.environment import prepare_network

prepare_network()
