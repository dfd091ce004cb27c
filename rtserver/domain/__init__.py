"""Pure ground: values, formulas and rules that need nothing but the standard library."""
