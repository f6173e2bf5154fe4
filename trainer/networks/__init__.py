"""Networks, their losses, weights and exports."""
