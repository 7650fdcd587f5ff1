# An SMSC of Perl's Net::SMPP, which a test drives as it does smsc.js: a JSON object a line, both ways.
#
# argv: port, system id, password
use strict;
use warnings;
use JSON::PP;
use IO::Select;
use Net::SMPP;

my ($port, $system_id, $password) = @ARGV;
$| = 1;
my $json = JSON::PP->new->canonical->ascii;
sub tell_of { print $json->encode({@_}), "\n" }

my $listener = Net::SMPP->new_listen('127.0.0.1', port => $port) or die "can't listen: $!";
tell_of(listening => $port + 0);

my $number = 0;
while (1) {
    my $made = $listener->accept or next;
    my $bound = 0;
    my $both = IO::Select->new($made, \*STDIN);
    SESSION: while (1) {
        for my $ready ($both->can_read) {
            if ($ready == \*STDIN) {
                my $line = <STDIN>;
                exit 0 unless defined $line;
                my $told = $json->decode($line);
                last SESSION if $told->{cut};
                if (my $text = $told->{deliver}) {
                    my @parts = $text->{parts} ? @{$text->{parts}} : ($text->{text});
                    my $n = 0;
                    for my $part (@parts) {
                        $n++;
                        my $head = @parts > 1 ? pack('C6', 5, 0, 3, 77, scalar(@parts), $n) : '';
                        $made->deliver_sm(
                            async => 1, source_addr_ton => 1, source_addr_npi => 1, source_addr => $text->{from},
                            destination_addr => '4930123456', esm_class => $head ? 0x40 : 0,
                            short_message => $head . $part,
                        );
                    }
                }
                if (my $receipt = $told->{receipt}) {
                    $made->deliver_sm(
                        async => 1, source_addr_ton => 1, source_addr_npi => 1, source_addr => $receipt->{from},
                        destination_addr => '4930123456', esm_class => 4,
                        short_message => "id:$receipt->{id} sub:001 dlvrd:001 submit date:2612010000 "
                            . "done date:2612010001 stat:$receipt->{state} err:000 text:",
                    );
                }
                next;
            }
            my $pdu = $made->read_pdu or last SESSION;
            my $seq = $pdu->{seq};
            if ($pdu->{cmd} == Net::SMPP::CMD_bind_transceiver) {
                if ($pdu->{system_id} ne $system_id or $pdu->{password} ne $password) {
                    tell_of(refused => $pdu->{system_id});
                    $made->bind_transceiver_resp(seq => $seq, status => Net::SMPP::ESME_RINVPASWD, system_id => 'smsc');
                    last SESSION;
                }
                $made->bind_transceiver_resp(seq => $seq, system_id => 'smsc');
                tell_of(bound => $pdu->{system_id});
            }
            elsif ($pdu->{cmd} == Net::SMPP::CMD_submit_sm) {
                my $id = sprintf '%d', 1000 + ++$number;
                $made->submit_sm_resp(seq => $seq, message_id => $id);
                tell_of(
                    submit => {
                        id => $id, to => $pdu->{destination_addr}, from => $pdu->{source_addr},
                        text => $pdu->{short_message}, validity => $pdu->{validity_period}, coding => $pdu->{data_coding},
                        esm => $pdu->{esm_class}, ton => $pdu->{dest_addr_ton}, registered => $pdu->{registered_delivery},
                        taken => JSON::PP::true, mode => 'accept',
                    }
                );
            }
            elsif ($pdu->{cmd} == Net::SMPP::CMD_enquire_link) { $made->enquire_link_resp(seq => $seq) }
            elsif ($pdu->{cmd} == Net::SMPP::CMD_unbind) { $made->unbind_resp(seq => $seq); last SESSION }
            elsif ($pdu->{cmd} == Net::SMPP::CMD_deliver_sm_resp) { tell_of(answered => { status => $pdu->{status} }) }
        }
    }
    close $made;
    tell_of(closed => JSON::PP::true);
}
