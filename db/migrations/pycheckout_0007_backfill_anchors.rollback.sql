-- The anchors stay on the carts: the earlier system reads them from there as well.
do $$ begin perform checkout_migration_undo('pycheckout_0007_backfill_anchors'); end $$;
