-- depends: pycheckout_0028_outbox_unsent
-- cost: none
--
-- Views for people. None shows an address, a note, a token or a key: checkout_grant_operators() opens them to whoever
-- watches the shop. Each figure is looked up from the cart, so that a question about one cart costs little. Of a cart that
-- the checkout converted, orders and lines that are the host's own count nowhere.

do $$ begin perform checkout_migration_open(); end $$;

create or replace view checkout_overview as
select cart.id as cart_id,
       cart.buyer_store_id,
       cart.status,
       cart.checkout_group_id,
       cart.currency,
       cart.created_at,
       cart.valid_until,
       cart.converted_at,
       cart.payment_method,
       cart.total_cents as quoted_total_cents,
       orders.total_cents as confirmed_total_cents,
       orders.count as orders,
       orders.states as order_states,
       lines.count as lines,
       lines.rejected as rejected_lines,
       lines.short as short_lines,
       events.unpublished as unpublished_events
  from cart_records as cart
  left join lateral (
    select sum(state.total_cents) as total_cents, coalesce(sum(state.count), 0)::bigint as count,
           string_agg(format('%s %s', state.count, state.status), ', ' order by state.status) as states
      from (select vendor_order.status, count(*) as count, sum(vendor_order.total_cents) as total_cents
              from vendor_orders as vendor_order
             where vendor_order.checkout_group_id = cart.checkout_group_id
               and (cart.converted_at is null or vendor_order.cart_id = cart.id and vendor_order.promo_discount_cents is not null)
             group by vendor_order.status) as state
  ) as orders on true
  left join lateral (
    select count(*) as count,
           count(*) filter (where line.status = 'rejected') as rejected,
           count(*) filter (where line.status = 'rejected' and line.notes = 'insufficient_inventory') as short
      from vendor_orders as vendor_order
      join order_line_items as line on line.order_id = vendor_order.id
     where vendor_order.checkout_group_id = cart.checkout_group_id
       and (cart.converted_at is null or line.cart_item_id = line.id)
  ) as lines on true
  left join lateral (
    select count(*) as unpublished
      from outbox_events as event
     where event.aggregate_id = cart.checkout_group_id
       and event.event_type in ('checkout.vendor_orders_created', 'checkout.converted')
       and event.published_at is null
  ) as events on true;

create or replace view outbox_backlog as
select event.event_type,
       event.attempt_count,
       count(*) as events,
       count(distinct event.aggregate_id) as aggregates,
       min(event.created_at) as oldest_at,
       date_trunc('second', greatest(now() - min(event.created_at), interval '0')) as oldest_age,
       max(event.last_error) as last_error,
       count(*) filter (where event.claimed_until > now()) as leased,
       count(*) filter (where event.next_attempt_at = 'infinity') as parked
  from outbox_events as event
 where event.published_at is null
 group by event.event_type, event.attempt_count;

comment on view checkout_overview is
  'Carts and what became of them, one row each. A cart that cart_purge() deleted is not here; its orders stand in vendor_orders.';
comment on column checkout_overview.cart_id is 'The cart.';
comment on column checkout_overview.buyer_store_id is 'Whose cart it is.';
comment on column checkout_overview.status is 'active: it can be checked out; converted: it became orders.';
comment on column checkout_overview.checkout_group_id is 'Anchor of the checkout, which its orders and events share; null before.';
comment on column checkout_overview.currency is 'ISO 4217 code; every _cents column counts its minor units.';
comment on column checkout_overview.created_at is 'When the cart was first written.';
comment on column checkout_overview.valid_until is 'When the quote runs out.';
comment on column checkout_overview.converted_at is 'When the checkout converted it; null before, and on carts that the earlier system converted.';
comment on column checkout_overview.payment_method is 'Method that the checkout confirmed; null before.';
comment on column checkout_overview.quoted_total_cents is 'Total that the buyer was quoted.';
comment on column checkout_overview.confirmed_total_cents is 'Sum of the orders as they are now, without what was rejected; null without orders.';
comment on column checkout_overview.orders is 'Number of vendor orders.';
comment on column checkout_overview.order_states is 'How many orders are in which state; null without orders.';
comment on column checkout_overview.lines is 'Number of order lines.';
comment on column checkout_overview.rejected_lines is 'Lines that are rejected, for want of stock or by their vendor.';
comment on column checkout_overview.short_lines is 'Lines that the checkout rejected for want of stock, not those of a vendor below its minimum.';
comment on column checkout_overview.unpublished_events is 'How many of the two events of the conversion nobody has published yet.';

comment on view outbox_backlog is 'Events that nobody has published yet, by type and number of attempts; no row means that none waits.';
comment on column outbox_backlog.event_type is 'Type of the events.';
comment on column outbox_backlog.attempt_count is 'How often they were tried; 0: not yet.';
comment on column outbox_backlog.events is 'How many there are.';
comment on column outbox_backlog.aggregates is 'About how many orders or checkouts they are.';
comment on column outbox_backlog.oldest_at is 'When the oldest of them was written.';
comment on column outbox_backlog.oldest_age is 'How long that one has waited.';
comment on column outbox_backlog.last_error is 'An error that one of them met; null: none failed.';
comment on column outbox_backlog.leased is 'How many of them a relay has just now.';
comment on column outbox_backlog.parked is 'How many of them are parked in outbox_dead_letters, and hold the younger events of their aggregates back.';

do $$ begin perform checkout_migration_close('pycheckout_0029_views'); end $$;
