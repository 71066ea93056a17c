do $$ begin perform checkout_migration_undo('pycheckout_0018_converted_carts_immutable'); end $$;
