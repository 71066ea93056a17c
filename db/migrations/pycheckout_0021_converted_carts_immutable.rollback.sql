do $$ begin perform checkout_migration_undo('pycheckout_0021_converted_carts_immutable'); end $$;
