"""Who: the operator, resellers, tenants, their people, and the scope that keeps them apart."""
