//! A real control plane, a registry and simulated hardware on loopback.
