-- depends: pycheckout_0014_inventory_slots
--
-- Idempotency keys, written in the transaction of the checkout that they belong to: a key that is there has its result.

do $$
begin
  perform checkout_migration_open();
  alter table inventory_items validate constraint inventory_items_split_stock_in_slots;

  if to_regclass('checkout_requests') is null then
    create table checkout_requests (
      buyer_store_id uuid not null,
      idempotency_key text not null,
      request_hash bytea not null,
      cart_id uuid not null,
      created_at timestamptz not null default now(),
      primary key (buyer_store_id, idempotency_key)
    );
    -- Rows come in order of time, and only the purge asks by time: a block range index costs an insert next to nothing.
    create index idx_checkout_requests_created_at on checkout_requests using brin (created_at);
  end if;
end
$$;

comment on table checkout_requests is 'Idempotency keys and the request each is bound to. checkout_requests_purge() removes old ones.';
comment on column checkout_requests.request_hash is 'SHA-256 of the normalised request; arguments at their default are left out.';

do $$ begin perform checkout_migration_close('pycheckout_0015_checkout_requests'); end $$;
