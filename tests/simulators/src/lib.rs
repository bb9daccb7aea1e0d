//! Simulated devices, Akri, kubelet, load balancer and flash program.
