// Tests that netlink sockets are there again, with their groups and options, and work.
// @restored Netlink sockets: protocol, port (another if it is taken), groups, options
// @refused Netlink sockets: an unread answer (the next checkpoint tries again)
// @not-kept Netlink sockets: unread multicast messages: a program can miss them at any time
#include "socket.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

int main(int argc, char **argv) {
    int rounds = rounds_of(argc, argv);
    int asking = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), watching = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE);
    int fresh = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    CHECK(asking >= 0 && watching >= 0 && fresh >= 0);
    struct sockaddr_nl name = {.nl_family = AF_NETLINK}, groups = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK}, got;
    CHECK(bind(asking, (struct sockaddr *)&name, sizeof name) == 0 && bind(watching, (struct sockaddr *)&groups, sizeof groups) == 0);
    set_option(watching, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_NSID);
    set_option(asking, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    for (int round = 0; round < rounds; round++) {
        rest();
        struct {
            struct nlmsghdr header;
            struct rtgenmsg body;
        } request = {{sizeof request, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, (unsigned)round, 0}, {AF_UNSPEC}};
        CHECK(send(asking, &request, sizeof request, 0) == sizeof request);
        static char buffer[1 << 16];
        int links = 0, done = 0;
        while (!done) {
            ssize_t n = recv(asking, buffer, sizeof buffer, 0);
            CHECK(n > 0);
            for (struct nlmsghdr *each = (struct nlmsghdr *)buffer; NLMSG_OK(each, n); each = NLMSG_NEXT(each, n)) {
                CHECK(each->nlmsg_seq == (unsigned)round && each->nlmsg_type != NLMSG_ERROR);
                links += each->nlmsg_type == RTM_NEWLINK;
                done |= each->nlmsg_type == NLMSG_DONE;
            }
        }
        CHECK(links > 0);
        socklen_t length = sizeof got;
        CHECK(getsockname(asking, (struct sockaddr *)&got, &length) == 0 && got.nl_pid != 0 && got.nl_groups == 0);
        CHECK(getsockname(watching, (struct sockaddr *)&got, &length) == 0 && got.nl_pid != 0 && got.nl_groups == (RTMGRP_LINK | 1u << (RTNLGRP_NSID - 1)));
        CHECK(getsockname(fresh, (struct sockaddr *)&got, &length) == 0 && got.nl_pid == 0);
        CHECK(option(asking, SOL_NETLINK, NETLINK_EXT_ACK) == 1 && option(watching, SOL_NETLINK, NETLINK_EXT_ACK) == 0);
        CHECK(fcntl(asking, F_GETFD) == FD_CLOEXEC);
    }
    puts("the kernel has answered");
}
