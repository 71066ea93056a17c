-- payment_sums: what the payment events of an order add up to, in whatever order they came.
--
-- numeric, since a sum of bigints may be more than one. Voids and captures come off what was authorised, and an excess of them is
-- no debt: the authorisation that they are of may still be on its way.

create or replace function payment_sums(
  order_id uuid,
  out open_cents numeric,
  out captured_cents numeric,
  out refunded_cents numeric,
  out failures bigint,
  out events bigint
)
language plpgsql
stable
as $$
begin
  select greatest(coalesce(sum(event.amount_cents) filter (where event.kind = 'authorized'), 0)
                  - coalesce(sum(event.amount_cents) filter (where event.kind in ('voided', 'captured')), 0), 0),
         coalesce(sum(event.amount_cents) filter (where event.kind = 'captured'), 0),
         coalesce(sum(event.amount_cents) filter (where event.kind in ('refunded', 'disputed', 'reversed')), 0),
         count(*) filter (where event.kind = 'failed'),
         count(*)
    into open_cents, captured_cents, refunded_cents, failures, events
    from payment_events as event
   where event.order_id = payment_sums.order_id;
end;
$$;

revoke execute on function payment_sums(uuid) from public;

comment on function payment_sums(uuid) is
  'Step of the payment functions: of an order what is authorised and open, captured, and given back, in cents; how many failures, and events at all.';
