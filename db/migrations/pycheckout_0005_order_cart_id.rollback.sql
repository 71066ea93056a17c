do $$ begin perform checkout_migration_undo('pycheckout_0005_order_cart_id'); end $$;
