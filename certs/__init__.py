"""Who is who: keys, the allow-list, tokens, sealed boxes, and the sockets that are made with them."""
