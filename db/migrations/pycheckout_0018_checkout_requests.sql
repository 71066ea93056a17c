-- depends: pycheckout_0017_validate_checks
-- cost: none
--
-- Idempotency keys, written in the transaction of the checkout that they belong to: a key that is there has its result.

do $$
begin
  perform checkout_migration_open();

  if to_regclass('checkout_requests') is null then
    create table checkout_requests (
      buyer_store_id uuid not null,
      idempotency_key text collate "C" not null,
      request_hash bytea not null,
      cart_id uuid not null,
      created_at timestamptz not null default now(),
      primary key (buyer_store_id, idempotency_key)
    );
    -- For the purge alone. Rows come in order of time, so an insert goes to the right end; a block range index would cost
    -- less still, and have every page to read once the space of purged rows is used again.
    create index idx_checkout_requests_created_at on checkout_requests (created_at);
  end if;
end
$$;

do $$
begin
  perform checkout_migration_close('pycheckout_0018_checkout_requests');
  perform checkout_comment(said.name, said.comment) from (values
    ('checkout_requests', 'Idempotency keys and the request each is bound to, written by the checkout. checkout_requests_purge() removes old ones.'),
    ('checkout_requests.buyer_store_id', 'Buyer whose key it is; the same key of another buyer is another key.'),
    ('checkout_requests.idempotency_key', 'Key that the caller chose: 1 to 255 visible ASCII characters.'),
    ('checkout_requests.request_hash', 'SHA-256 of the normalised request; arguments at their default are left out.'),
    ('checkout_requests.cart_id', 'Cart of the request.'),
    ('checkout_requests.created_at', 'When the key was bound; checkout_requests_purge() goes by it.')
  ) as said (name, comment);
end
$$;
