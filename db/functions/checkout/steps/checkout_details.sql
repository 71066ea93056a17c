-- checkout_details: what a buyer and a host note on an order beside what is bought, checked and in one form.
--
-- It stands on the orders alone: a cart of the host's may have columns of these names. A day is 24 hours, whatever the session's time zone.

create or replace function checkout_details(billing_address jsonb, purchase_order text, metadata jsonb, expires_in interval)
returns jsonb
language plpgsql
stable
as $$
declare
  v_metadata constant jsonb := nullif(checkout_details.metadata, 'null');
  v_billing constant jsonb := nullif(checkout_details.billing_address, 'null');
  v_interval constant interval := checkout_details.expires_in;
begin
  if num_nonnulls(v_billing, checkout_details.purchase_order, v_metadata, v_interval) = 0 then
    return null;
  end if;
  if v_billing is not null then
    perform checkout_address('billing_address', v_billing);
  end if;
  if length(checkout_details.purchase_order) > 100 or checkout_is_blank(checkout_details.purchase_order)
     or checkout_details.purchase_order ~ '[[:cntrl:]]' then
    perform checkout_raise_invalid('purchase_order', 'must be a text of 1 to 100 visible characters');
  end if;
  perform checkout_check_object('metadata', v_metadata);
  if extract(year from v_interval) <> 0 or extract(month from v_interval) <> 0 then
    perform checkout_raise_invalid('expires_in', 'must be in days, hours or seconds: months have no fixed length');
  elsif v_interval not between '1 microsecond' and '366 days' then
    perform checkout_raise_invalid('expires_in', 'must be above 0 and at most 366 days');
  end if;

  return jsonb_strip_nulls(jsonb_build_object(
           'billing_address', v_billing,
           'purchase_order', checkout_details.purchase_order,
           'expires_in', extract(epoch from v_interval)))
         || case when v_metadata is null then '{}' else jsonb_build_object('metadata', v_metadata) end;
end;
$$;

revoke execute on function checkout_details(jsonb, text, jsonb, interval) from public;

comment on function checkout_details(jsonb, text, jsonb, interval) is
  'Step of checkout_execute: {billing_address, purchase_order, metadata, expires_in (seconds)} as far as they are given; null if none is. Raises '
  'OC005 for an address that is none, a purchase order of other than 1 to 100 visible characters, metadata that are no object, are longer than 16 kB or '
  'deeper than 8 levels, or an interval that is not above 0 and at most 366 days, or has months.';
