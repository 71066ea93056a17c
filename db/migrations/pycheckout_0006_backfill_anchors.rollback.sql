-- The anchors stay on the carts: the earlier system reads them from there as well.
delete from checkout_ledger where migration = 'pycheckout_0006_backfill_anchors';
