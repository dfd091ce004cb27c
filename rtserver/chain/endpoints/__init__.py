"""The endpoints of one chain as a pool: which is asked, what is known of each, what is tried when one fails."""
